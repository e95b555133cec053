"""The worker process: what runs under the interpreter that has the bindings."""
