// Package log is the plugin's log: [log] in plugin.toml. What is written to standard output and
// standard error goes there, too.
package log

import (
	"context"
	"fmt"
	"log/slog"

	"go.example/capwasm/internal/host"
	"go.example/capwasm/internal/wit/capwasm_log_log"
)

// Level is how grave a record is.
type Level uint8

const (
	LevelDebug Level = Level(capwasm_log_log.Level_Debug) // for the author
	LevelInfo  Level = Level(capwasm_log_log.Level_Info)  // worth keeping
	LevelWarn  Level = Level(capwasm_log_log.Level_Warn)  // something to look at
	LevelError Level = Level(capwasm_log_log.Level_Error) // something failed
)

// Debug writes a record for the author; fields are names and values in turn, as in package slog.
func Debug(message string, fields ...any) { Write(LevelDebug, message, fields...) }

// Info writes a record that is worth keeping.
func Info(message string, fields ...any) { Write(LevelInfo, message, fields...) }

// Warn writes a record of something to look at.
func Warn(message string, fields ...any) { Write(LevelWarn, message, fields...) }

// Error writes a record of something that failed.
func Error(message string, fields ...any) { Write(LevelError, message, fields...) }

// Write writes a record. What is over the size or rate that was granted is cut or dropped, and
// counted; it is never an error.
func Write(level Level, message string, fields ...any) {
	made := []capwasm_log_log.Field{}
	for i := 0; i < len(fields); i += 2 {
		key, value := "!BADKEY", fields[i]
		if i+1 < len(fields) {
			key, value = fmt.Sprint(fields[i]), fields[i+1]
		}
		made = append(made, capwasm_log_log.Field{Key: key, Value: fmt.Sprint(value)})
	}
	write(level, message, made)
}

func write(level Level, message string, fields []capwasm_log_log.Field) {
	host.Call(func() struct{} {
		capwasm_log_log.Write(uint8(level), message, fields)
		return struct{}{}
	})
}

// Handler has package slog write here: slog.New(log.Handler{}). Names of groups come before those of
// their attributes, with a dot.
type Handler struct {
	// Least is the gravity below which nothing is written; slog.LevelInfo if nil.
	Least  slog.Leveler
	prefix string
	fields []capwasm_log_log.Field
}

// Enabled says whether a record of that gravity is written.
func (h Handler) Enabled(_ context.Context, level slog.Level) bool {
	least := slog.LevelInfo
	if h.Least != nil {
		least = h.Least.Level()
	}
	return level >= least
}

// Handle writes a record.
func (h Handler) Handle(_ context.Context, record slog.Record) error {
	fields := h.fields[:len(h.fields):len(h.fields)]
	record.Attrs(func(attr slog.Attr) bool {
		fields = add(fields, h.prefix, attr)
		return true
	})
	level := LevelError
	switch {
	case record.Level < slog.LevelInfo:
		level = LevelDebug
	case record.Level < slog.LevelWarn:
		level = LevelInfo
	case record.Level < slog.LevelError:
		level = LevelWarn
	}
	write(level, record.Message, fields)
	return nil
}

// WithAttrs is a handler that adds these to every record.
func (h Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, attr := range attrs {
		h.fields = add(h.fields, h.prefix, attr)
	}
	return h
}

// WithGroup is a handler that puts name before the names of what comes after.
func (h Handler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

func add(fields []capwasm_log_log.Field, prefix string, attr slog.Attr) []capwasm_log_log.Field {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attr.Key != "" {
			prefix += attr.Key + "."
		}
		for _, inner := range value.Group() {
			fields = add(fields, prefix, inner)
		}
		return fields
	}
	if attr.Equal(slog.Attr{}) {
		return fields
	}
	return append(fields, capwasm_log_log.Field{Key: prefix + attr.Key, Value: value.String()})
}
