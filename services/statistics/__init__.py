"""The statistics service: invites, volumes of members and their teams, income by rule, cohorts. It follows the log."""
