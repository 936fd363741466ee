"""The comparisons that the notebooks make: links and fixes, and defects that the audit missed."""
