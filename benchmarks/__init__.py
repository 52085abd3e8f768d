"""One file per question. Each prints one JSON object; timing is interleaved, figures are medians and ratios."""
