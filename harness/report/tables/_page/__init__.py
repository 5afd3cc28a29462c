"""Parts of the HTML page: what it embeds (`_board`, `_columns`, `_importance`), its skeleton, styles and scripts."""
