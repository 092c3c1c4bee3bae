"""Where images and true labels come from: the source contract and one file a data set."""
