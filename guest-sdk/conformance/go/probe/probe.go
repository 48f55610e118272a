// Package probe does one thing with one capability, by name.
package probe

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.example/capwasm"
	"go.example/capwasm/clock"
	"go.example/capwasm/config"
	"go.example/capwasm/exec"
	"go.example/capwasm/fetch"
	"go.example/capwasm/fs"
	"go.example/capwasm/kv"
	"go.example/capwasm/log"
	"go.example/capwasm/random"
	"go.example/capwasm/secrets"
)

const none = "(none)"

// Run runs an operation; its error is the word that the capability gave.
func Run(operation string, arguments []string) (string, error) {
	function, ok := operations[operation]
	if !ok {
		return "", fmt.Errorf("no operation %s", operation)
	}
	told, err := function(arguments)
	if word, ok := capwasm.WordOf(err); ok {
		err = word
	}
	return told, err
}

var operations map[string]func([]string) (string, error)

func init() {
	operations = map[string]func([]string) (string, error){
		"fs.mounts":       func([]string) (string, error) { return mounts(), nil },
		"fs.read":         func(a []string) (string, error) { return readFile(a[0]) },
		"fs.write":        func(a []string) (string, error) { return write(fs.Create, a) },
		"fs.append":       func(a []string) (string, error) { return write(fs.Append, a) },
		"fs.create":       func(a []string) (string, error) { return write(fs.CreateNew, a) },
		"fs.hold":         func(a []string) (string, error) { return hold(a[0], number(a[1])) },
		"fs.size":         func(a []string) (string, error) { return size(a[0]) },
		"fs.truncate":     func(a []string) (string, error) { return "", truncate(a[0], number(a[1])) },
		"fs.list":         func(a []string) (string, error) { return list(a[0]) },
		"fs.stat":         func(a []string) (string, error) { return stat(a[0]) },
		"fs.mkdir":        func(a []string) (string, error) { return "", fs.Mkdir(a[0]) },
		"fs.remove":       func(a []string) (string, error) { return "", fs.Remove(a[0]) },
		"fs.rename":       func(a []string) (string, error) { return "", fs.Rename(a[0], a[1]) },
		"fetch":           fetched,
		"fetch.header":    header,
		"fetch.stream":    stream,
		"secret.get":      secret(func(s *secrets.Secret) (string, error) { return s.Name(), nil }),
		"secret.lease":    secret(func(s *secrets.Secret) (string, error) { return yes(s.Lease() > 0, nil) }),
		"secret.reveal":   secret(func(s *secrets.Secret) (string, error) { return text(s.Reveal()) }),
		"kv.get":          func(a []string) (string, error) { return get(a[0]) },
		"kv.set":          func(a []string) (string, error) { return "", set(a) },
		"kv.cas":          func(a []string) (string, error) { return yes(compareAndSet(a)) },
		"kv.increment":    func(a []string) (string, error) { return increment(a[0], number(a[1])) },
		"kv.delete":       func(a []string) (string, error) { return yes(kv.Delete(a[0])) },
		"kv.keys":         func(a []string) (string, error) { return keys(a[0]) },
		"log":             func(a []string) (string, error) { return "", record(a[0], a[1]) },
		"log.flood":       func(a []string) (string, error) { return "", flood(number(a[0])) },
		"clock.now":       func([]string) (string, error) { return fmt.Sprint(clock.Now().UnixNano()), nil },
		"clock.monotonic": func([]string) (string, error) { return yes(monotonic(), nil) },
		"clock.sleep":     func(a []string) (string, error) { return "", sleep(number(a[0])) },
		"clock.loop":      func(a []string) (string, error) { return "", loop(number(a[0])) },
		"random":          func(a []string) (string, error) { return randoms(number(a[0])) },
		"random.differ":   func([]string) (string, error) { return differ() },
		"config.get":      func(a []string) (string, error) { return config.Get(a[0], none), nil },
		"config.all":      func([]string) (string, error) { return all(), nil },
		"exec":            run,
		"std.print":       func(a []string) (string, error) { return "", print(a[0]) },
		"alloc":           func(a []string) (string, error) { return alloc(number(a[0])), nil },
		"spin":            func([]string) (string, error) { return spin(), nil },
		"recurse":         func([]string) (string, error) { return recurse(), nil },
		"panic":           func(a []string) (string, error) { panic(a[0]) },
	}
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func yes(holds bool, err error) (string, error) {
	if holds {
		return "yes", err
	}
	return "no", err
}

func text(data []byte, err error) (string, error) { return string(data), err }

func mounts() string {
	var lines []string
	for _, m := range fs.Mounts() {
		access, quota := "read", "-"
		if m.Writable {
			access = "read-write"
		}
		if m.Bounded {
			quota = fmt.Sprint(m.Quota)
		}
		lines = append(lines, fmt.Sprint(m.Path, " ", access, " ", quota, " ", m.Used))
	}
	return strings.Join(lines, "\n")
}

func readFile(path string) (string, error) {
	file, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var whole strings.Builder
	_, err = io.CopyBuffer(struct{ io.Writer }{&whole}, struct{ io.Reader }{file}, make([]byte, 64<<10))
	return whole.String(), err
}

func write(open func(string) (*fs.File, error), a []string) (string, error) {
	file, err := open(a[0])
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = io.WriteString(file, a[1])
	return "", err
}

func hold(path string, n int64) (string, error) {
	held := 0
	for range n {
		file, err := fs.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		held++
	}
	return fmt.Sprint(held), nil
}

func size(path string) (string, error) {
	file, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	n, err := file.Size()
	return fmt.Sprint(n), err
}

func truncate(path string, size int64) error {
	file, err := fs.Update(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}

func list(path string) (string, error) {
	var names []string
	for info, err := range fs.List(path) {
		if err != nil {
			return "", err
		}
		names = append(names, info.Name())
	}
	return strings.Join(names, "\n"), nil
}

func stat(path string) (string, error) {
	info, err := fs.Stat(path)
	if err != nil {
		return "", err
	}
	kind := "other"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		kind = "file"
	case mode.IsDir():
		kind = "directory"
	case mode&iofs.ModeSymlink != 0:
		kind = "link"
	}
	return fmt.Sprint(kind, " ", info.Size()), nil
}

// send is the answer to a request whose parts are told by how they begin.
func send(method, url string, parts []string) (*fetch.Response, error) {
	request := &fetch.Request{Method: method, URL: url, Header: fetch.Header{}}
	for _, part := range parts {
		if name, ok := strings.CutPrefix(part, "secret:"); ok {
			secret, err := secrets.Get(name)
			if err != nil {
				return nil, err
			}
			defer secret.Close()
			request.Secrets = append(request.Secrets, secret)
		} else if body, ok := strings.CutPrefix(part, "body:"); ok {
			request.Body = strings.NewReader(body)
		} else {
			name, value, _ := strings.Cut(part, "=")
			request.Header.Add(name, value)
		}
	}
	return fetch.Do(request)
}

func fetched(a []string) (string, error) {
	answer, err := send(a[0], a[1], a[2:])
	if err != nil {
		return "", err
	}
	body, err := answer.Bytes(1 << 20)
	return fmt.Sprint(answer.Status, " ", string(body)), err
}

func header(a []string) (string, error) {
	answer, err := send(a[0], a[1], nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if value := answer.Header.Get(a[2]); value != "" {
		return value, nil
	}
	return none, nil
}

func stream(a []string) (string, error) {
	answer, err := send(a[0], a[1], nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	total, piece := 0, make([]byte, 1000)
	for {
		n, err := answer.Body.Read(piece)
		total += n
		if errors.Is(err, io.EOF) {
			return fmt.Sprint(total), nil
		}
		if err != nil {
			return "", err
		}
	}
}

func secret(use func(*secrets.Secret) (string, error)) func([]string) (string, error) {
	return func(a []string) (string, error) {
		secret, err := secrets.Get(a[0])
		if err != nil {
			return "", err
		}
		defer secret.Close()
		return use(secret)
	}
}

func get(key string) (string, error) {
	value, ok, err := kv.Get(key)
	if !ok {
		return none, err
	}
	return string(value), err
}

func set(a []string) error {
	if len(a) > 2 {
		return kv.SetFor(a[0], []byte(a[1]), time.Duration(number(a[2]))*time.Millisecond)
	}
	return kv.Set(a[0], []byte(a[1]))
}

func compareAndSet(a []string) (bool, error) {
	var expected []byte
	if a[1] != none {
		expected = []byte(a[1])
	}
	return kv.CompareAndSet(a[0], expected, []byte(a[2]))
}

func increment(key string, by int64) (string, error) {
	sum, err := kv.Increment(key, by)
	return fmt.Sprint(sum), err
}

func keys(prefix string) (string, error) {
	var found []string
	for key, err := range kv.Keys(prefix) {
		if err != nil {
			return "", err
		}
		found = append(found, key)
	}
	return strings.Join(found, "\n"), nil
}

func record(level, message string) error {
	levels := map[string]log.Level{
		"debug": log.LevelDebug, "info": log.LevelInfo, "warn": log.LevelWarn, "error": log.LevelError,
	}
	log.Write(levels[level], message, "from", "guest")
	return nil
}

func flood(n int64) error {
	for range n {
		log.Info(strings.Repeat("x", 1000))
	}
	return nil
}

func monotonic() bool {
	before := clock.Monotonic()
	return clock.Monotonic() >= before
}

func sleep(ns int64) error {
	clock.Sleep(time.Duration(ns))
	return nil
}

func loop(n int64) error {
	for range n {
		clock.Now()
	}
	return nil
}

func randoms(n int64) (string, error) {
	data, err := random.Bytes(int(n))
	return fmt.Sprint(len(data)), err
}

func differ() (string, error) {
	first, second := make([]byte, 16), make([]byte, 16)
	if _, err := io.ReadFull(random.Reader, first); err != nil {
		return "", err
	}
	_, err := io.ReadFull(random.Reader, second)
	return yes(!slices.Equal(first, second), err)
}

func all() string {
	var lines []string
	for key, value := range config.All() {
		lines = append(lines, key+"="+value)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func run(a []string) (string, error) {
	out, err := exec.Run(a[0], strings.NewReader(a[1]), a[2:]...)
	if err != nil {
		return "", err
	}
	code := "-"
	if !out.Signalled {
		code = fmt.Sprint(out.Code)
	}
	return code + "\n" + string(out.Stdout), nil
}

func print(text string) error {
	_, err := fmt.Println(text)
	return err
}

func alloc(n int64) string {
	var held [][]byte
	for range n {
		held = append(held, slices.Repeat([]byte{1}, 1<<20))
	}
	return fmt.Sprint(len(held))
}

func spin() string {
	for n := 0; ; n++ {
		if n < 0 {
			return ""
		}
	}
}

func recurse() string { return recurse() + "x" }
