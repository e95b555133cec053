"""Tiny seeded models: one per head size, grouping and feature that attention kernels differ in.

A member is a declaration (:mod:`~pytest_kvquant.zoo.declaration`), the writer makes a GGUF file of
it, the store keeps the file. They speak no language: they are judged by exact arithmetic on their
own nodes, never by a perplexity.
"""
