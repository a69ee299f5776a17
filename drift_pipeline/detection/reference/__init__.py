"""The reference: what healthy looked like, frozen with a model version, and how much it varied by itself."""
