"""The commands of ``cml-bench``, a file each or a group of them; slow imports only where a command runs."""
