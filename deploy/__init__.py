"""Ways to run MFN: this machine alone (``local``), and the settings of larger deployments."""
