"""What the pipeline tells of itself to other systems."""
