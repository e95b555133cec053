"""Planted faults: how many of them the gates catch, how soon, and how often they cry wolf."""
