"""capwasm measured side by side with raw wasmtime-py and Extism, on the same work, in one run."""
