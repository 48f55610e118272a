// Package capwasm is what all packages of this SDK share: the words that capabilities say no with, and
// the types of WIT that Go has no words for.
//
// A plugin is an ordinary package whose functions are those that wit/world.wit exports; `capwasm build`
// makes the component. Each capability is a package of its own: fetch, secrets, kv, log, fs, clock,
// random, config and exec.
package capwasm

import (
	"errors"
	"io/fs"

	types "go.bytecodealliance.org/pkg/wit/types"
)

// Word is why a capability said no: a word of its WIT interface, such as "too-large". It is an error,
// so that errors.Is finds it in whatever wraps it.
type Word string

// What capabilities say. Where the standard library has an error for it (fs.ErrNotExist,
// fs.ErrPermission, fs.ErrExist, fs.ErrInvalid, fs.ErrClosed), errors.Is finds that, too.
const (
	ErrDenied       Word = "denied"        // not granted; the operator sees what would grant it
	ErrNotFound     Word = "not-found"     // no such thing, inside what was granted
	ErrExists       Word = "exists"        // it is there already
	ErrNotDirectory Word = "not-directory" // a part of the path is no directory
	ErrIsDirectory  Word = "is-directory"  // a directory, where a file was asked for
	ErrNotEmpty     Word = "not-empty"     // the directory is not empty
	ErrInvalid      Word = "invalid"       // an argument is malformed
	ErrTooLarge     Word = "too-large"     // more than a limit allows
	ErrQuota        Word = "quota"         // the room that was granted is used up
	ErrTimeout      Word = "timeout"       // out of time
	ErrClosed       Word = "closed"        // the handle was closed, or the grant revoked
	ErrInsecure     Word = "insecure"      // the origin's TLS is not acceptable
	ErrUnavailable  Word = "unavailable"   // the other side can't be reached
)

var standard = map[Word]error{
	ErrDenied:   fs.ErrPermission,
	ErrNotFound: fs.ErrNotExist,
	ErrExists:   fs.ErrExist,
	ErrInvalid:  fs.ErrInvalid,
	ErrClosed:   fs.ErrClosed,
}

// Error is the word itself.
func (w Word) Error() string { return string(w) }

// Is says whether target is the standard library's error for the same thing.
func (w Word) Is(target error) bool { return standard[w] == target && target != nil }

// Error is a word about something that was tried, such as "kv.Set seen/Ada".
type Error struct {
	Word   Word
	Action string
}

func (e *Error) Error() string { return e.Action + ": " + string(e.Word) }

// Unwrap is the word: errors.Is(err, capwasm.ErrDenied).
func (e *Error) Unwrap() error { return e.Word }

// WordOf is the word that a capability gave, if err is or wraps one.
func WordOf(err error) (Word, bool) {
	var word Word
	ok := errors.As(err, &word)
	return word, ok
}

// Failure is an error with a value, for functions whose WIT says `result<…, E>` with an E other than
// string. Make it with Fail.
type Failure[E any] struct{ Value E }

func (f *Failure[E]) Error() string { return "the function failed with a value" }

// Fail is the error of an exported function, with the value that its caller gets.
func Fail[E any](value E) error { return &Failure[E]{value} }

// Reason is the value of the Failure that err is or wraps. It panics if there is none: an error that
// the WIT of the function has no place for ends the call. The code around exported functions calls it.
func Reason[E any](err error) E {
	var failure *Failure[E]
	if !errors.As(err, &failure) {
		panic(err)
	}
	return failure.Value
}

// Option is WIT's option<T>: Some(value) or None.
type Option[T any] = types.Option[T]

// Result is WIT's result<T, E>, where it stands within another type: Ok(value) or Err(reason).
type Result[T, E any] = types.Result[T, E]

// Unit is the value of a result without one.
type Unit = types.Unit

// Tuple2 to Tuple4 are WIT's tuples, where they stand within another type or are parameters: F0, F1, ….
type (
	Tuple2[A, B any]       = types.Tuple2[A, B]
	Tuple3[A, B, C any]    = types.Tuple3[A, B, C]
	Tuple4[A, B, C, D any] = types.Tuple4[A, B, C, D]
)

// Some is an Option with a value.
func Some[T any](value T) Option[T] { return types.Some(value) }

// None is an Option without one.
func None[T any]() Option[T] { return types.None[T]() }

// Ok is a Result that went well.
func Ok[T, E any](value T) Result[T, E] { return types.Ok[T, E](value) }

// Err is a Result that did not.
func Err[T, E any](reason E) Result[T, E] { return types.Err[T, E](reason) }
