"""The report as one HTML file that needs nothing else: text, figures, tables, numbers and the code that shows them."""
