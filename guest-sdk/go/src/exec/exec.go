// Package exec runs commands that the operator named: [[exec]] in plugin.toml. A high risk: a person
// decides.
//
// What a command is, the operator's policy says: the program, its fixed words, and what may stand in
// their open places. Run fills those, in order.
package exec

import (
	"fmt"
	"io"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	commands "go.example/capwasm/internal/wit/capwasm_exec_commands"

	types "go.bytecodealliance.org/pkg/wit/types"
)

var words = host.Words{
	commands.Error_Denied:      capwasm.ErrDenied,
	commands.Error_Invalid:     capwasm.ErrInvalid,
	commands.Error_TooLarge:    capwasm.ErrTooLarge,
	commands.Error_Timeout:     capwasm.ErrTimeout,
	commands.Error_Closed:      capwasm.ErrClosed,
	commands.Error_Unavailable: capwasm.ErrUnavailable,
}

// Output is what a command left when it ended.
type Output struct {
	Command        string
	Code           int  // its exit code
	Signalled      bool // a signal ended it, and Code means nothing: a crash, or one of its limits
	Stdout, Stderr []byte
	Truncated      bool // it would have written more than was granted
}

// Run runs a command to its end. input is its standard input, and may be nil. An exit code other than
// 0 is no error; Check makes it one.
func Run(command string, input io.Reader, arguments ...string) (*Output, error) {
	var data []byte
	if input != nil {
		var err error
		if data, err = io.ReadAll(input); err != nil {
			return nil, err
		}
	}
	out, err := host.Try("exec.Run "+command, words, func() types.Result[commands.Output, uint8] {
		return commands.Run(command, arguments, data)
	})
	if err != nil {
		return nil, err
	}
	made := &Output{
		Command:   command,
		Signalled: out.Code.IsNone(),
		Stdout:    out.Stdout,
		Stderr:    out.Stderr,
		Truncated: out.StdoutTruncated || out.StderrTruncated,
	}
	if !made.Signalled {
		made.Code = int(out.Code.Some())
	}
	return made, nil
}

// Check is nil if it ended with 0, and all that it wrote is here; else an error that wraps
// capwasm.ErrUnavailable.
func (o *Output) Check() error {
	switch {
	case o.Truncated:
		return fmt.Errorf("exec.Run %s: it wrote more than it may: %w", o.Command, capwasm.ErrUnavailable)
	case o.Signalled:
		return fmt.Errorf("exec.Run %s: a signal ended it: %w", o.Command, capwasm.ErrUnavailable)
	case o.Code != 0:
		return fmt.Errorf("exec.Run %s: it ended with %d: %w", o.Command, o.Code, capwasm.ErrUnavailable)
	}
	return nil
}
