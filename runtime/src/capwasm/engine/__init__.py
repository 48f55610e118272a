"""The engine: compiling, linking and running components.  The only part that knows wasmtime."""
