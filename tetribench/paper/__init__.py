"""The paper's figures and tables, a module each: from the cells of an experiment to a table and a drawing."""
