"""Studies for the notebooks: links and fixes compared, and defects that the audit missed."""
