"""What a run and its workers say to each other, a class a message.

Standard-library dataclasses, for the worker has NumPy and the bindings alone. The parent reads an
answer with msgspec, which takes nothing but what the class says; so both sides have one schema.
"""
