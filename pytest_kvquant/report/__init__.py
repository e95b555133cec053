"""Views of a result: terminal, page, summary, tables. They read records and nothing above."""
