"""A step and a provider from outside the package."""
