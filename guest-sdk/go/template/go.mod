module __NAME__

go 1.25

require (
	go.bytecodealliance.org/pkg v0.2.1 // indirect
	go.example/capwasm v__CAPWASM__
)
