module forms

go 1.18
