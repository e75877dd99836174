"""The referral service: who brought whom, for life, and who stands in which tier."""
