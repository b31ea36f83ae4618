"""Recipes that train networks of the zoo on real data."""
