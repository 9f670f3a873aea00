"""Specialists: models for the classes that a generalist confuses."""
