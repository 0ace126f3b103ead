"""The search itself: systems, query vectors, filters, paging, uploads, the teacher. No HTTP code."""
