module stillwell.test/loadgen

go 1.25
