"""Where training cases come from: one file for every layout, each with ``find_...(root)``, which does not read the cases yet."""
