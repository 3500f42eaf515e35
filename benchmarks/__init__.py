"""Measurements of the package, and the pages made from them."""
