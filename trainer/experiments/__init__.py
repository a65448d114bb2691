"""Cross-language experiments: losses of sections, tables, intervals, baseline and validity checks."""
