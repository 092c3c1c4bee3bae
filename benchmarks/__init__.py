"""Built-in benchmarks, one flat file each; imported as ``cml_bench.benchmarks.<stem>``."""

if __name__ != "cml_bench.benchmarks":
    raise ImportError("import cml_bench.benchmarks, not benchmarks: a second copy of every benchmark would be loaded")
