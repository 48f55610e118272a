// Package types gives every value back as it came.
package types

import (
	"errors"
	"fmt"

	"conformance/bindings/types"

	"go.example/capwasm"
)

func EchoBool(value bool) bool                   { return value }
func EchoU8(value uint8) uint8                   { return value }
func EchoU16(value uint16) uint16                { return value }
func EchoU32(value uint32) uint32                { return value }
func EchoU64(value uint64) uint64                { return value }
func EchoS8(value int8) int8                     { return value }
func EchoS16(value int16) int16                  { return value }
func EchoS32(value int32) int32                  { return value }
func EchoS64(value int64) int64                  { return value }
func EchoF32(value float32) float32              { return value }
func EchoF64(value float64) float64              { return value }
func EchoChar(value rune) rune                   { return value }
func EchoString(value string) string             { return value }
func EchoBytes(value []byte) []byte              { return value }
func EchoStrings(value []string) []string        { return value }
func EchoNumbers(value []uint32) []uint32        { return value }
func EchoPoint(value types.Point) types.Point    { return value }
func EchoShape(value types.Shape) types.Shape    { return value }
func EchoAmount(value types.Amount) types.Amount { return value }
func EchoColour(value types.Colour) types.Colour { return value }
func EchoRights(value types.Rights) types.Rights { return value }

func EchoTuple(value capwasm.Tuple3[uint8, string, bool]) (uint8, string, bool) {
	return value.F0, value.F1, value.F2
}

func EchoOption(value capwasm.Option[uint32]) capwasm.Option[uint32] { return value }

func EchoOptionOption(
	value capwasm.Option[capwasm.Option[uint32]],
) capwasm.Option[capwasm.Option[uint32]] {
	return value
}

func EchoResult(value capwasm.Result[uint32, string]) (uint32, error) {
	if value.IsErr() {
		return 0, errors.New(value.Err())
	}
	return value.Ok(), nil
}

func Checked(value uint32, fail capwasm.Option[string]) (uint32, error) {
	if fail.IsSome() {
		return 0, errors.New(fail.Some())
	}
	return value, nil
}

func Describe(name string, count uint32, colour types.Colour) string {
	words := map[types.Colour]string{
		types.Colour_Red: "red", types.Colour_Green: "green", types.Colour_DarkBlue: "dark-blue",
	}
	return fmt.Sprint(name, " ", count, " ", words[colour])
}

func Nothing() {}
