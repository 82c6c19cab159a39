"""Rows from files and the Hub, and the splits made of them."""
