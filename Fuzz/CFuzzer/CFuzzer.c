// Only the header: libFuzzer comes with the compiler.
