"""What was measured, for people: tables, figures, one HTML page. Reads run folders, and nothing that is running."""
