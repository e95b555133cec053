"""Faults planted into the operations of a live graph, and which test catches them."""
