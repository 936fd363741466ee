"""The comparisons that the notebooks make: links and fixes, and what the audit missed."""
