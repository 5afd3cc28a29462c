"""Parts of the HTML page: embedded data (`_board`, `_columns`, `_importance`), template, styles and scripts."""
