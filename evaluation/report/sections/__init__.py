"""Sections of the page, one module each: from a `evaluation.report.page.Page` to what its template prints."""
