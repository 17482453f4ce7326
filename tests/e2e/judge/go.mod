module garrison.test/judge

go 1.25
