"""Studies for the notebooks: links and fixes compared, defects that the audit missed, and other backends."""
