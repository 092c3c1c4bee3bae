"""Built-in strategies, one flat file each; imported as ``cml_bench.strategies.<stem>``."""

if __name__ != "cml_bench.strategies":
    raise ImportError("import cml_bench.strategies, not strategies: a second copy of every strategy would be loaded")
