"""Remember it: model versions as bundles of files under one digest, and the backends that keep them."""
