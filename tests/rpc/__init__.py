"""Models on several machines: llama.cpp's RPC servers, real processes on this one."""
