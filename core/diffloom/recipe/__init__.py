"""Recipes: reading, validating, locking, checking and building them."""
