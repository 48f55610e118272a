module conformance

go 1.25

require (
	go.bytecodealliance.org/pkg v0.2.1 // indirect
	go.example/capwasm v0.1.0
)
