// Package fetch is HTTP to the origins that the plugin was granted: [[net]] in plugin.toml.
package fetch

import (
	"bytes"
	"io"
	"net/textproto"
	"time"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	client "go.example/capwasm/internal/wit/capwasm_fetch_client"
	store "go.example/capwasm/internal/wit/capwasm_secrets_store"
	"go.example/capwasm/secrets"

	types "go.bytecodealliance.org/pkg/wit/types"
)

// What one read may carry.
const piece = 1 << 20

var words = host.Words{
	client.Error_Denied:      capwasm.ErrDenied,
	client.Error_Invalid:     capwasm.ErrInvalid,
	client.Error_TooLarge:    capwasm.ErrTooLarge,
	client.Error_Timeout:     capwasm.ErrTimeout,
	client.Error_Closed:      capwasm.ErrClosed,
	client.Error_Unavailable: capwasm.ErrUnavailable,
	client.Error_Insecure:    capwasm.ErrInsecure,
}

// Header is headers by name, as textproto.CanonicalMIMEHeaderKey writes it: Get and Set take any case.
type Header = textproto.MIMEHeader

// Redirects is what to do with a redirect.
type Redirects uint8

const (
	Follow Redirects = iota // if the grant allows its target; up to 10
	Manual                  // the redirect is the response
	Refuse                  // fail with capwasm.ErrDenied
)

// Request is a request, whole.
type Request struct {
	Method    string // GET if empty
	URL       string // absolute
	Header    Header
	Body      io.Reader         // read to its end before the request goes; nil for none
	Secrets   []*secrets.Secret // which the host puts into the request
	Timeout   time.Duration     // of the whole exchange; 0 for what the limits allow
	Redirects Redirects
}

// Response is an answer. Its Body is read as it is asked for, and must be closed.
type Response struct {
	Status int
	URL    string // that answered, after redirects
	Header Header
	Body   io.ReadCloser
}

// Do sends a request, and returns once the response's headers are here. Any status is no error.
func Do(request *Request) (*Response, error) {
	method := request.Method
	if method == "" {
		method = "GET"
	}
	action := "fetch " + method + " " + request.URL
	message := client.Request{
		Method:    method,
		Url:       request.URL,
		Headers:   []client.Header{},
		Body:      types.None[[]byte](),
		TimeoutMs: types.None[uint32](),
		Redirects: uint8(request.Redirects),
	}
	for name, values := range request.Header {
		for _, value := range values {
			message.Headers = append(message.Headers, client.Header{Name: name, Value: value})
		}
	}
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		message.Body = types.Some(body)
	}
	if request.Timeout > 0 {
		message.TimeoutMs = types.Some(uint32(min(max(1, request.Timeout.Milliseconds()), 1<<32-1)))
	}
	handles := make([]*store.Secret, 0, len(request.Secrets))
	for _, secret := range request.Secrets {
		if secret.Handle() == nil {
			return nil, host.Closed(action)
		}
		handles = append(handles, secret.Handle())
	}
	found, err := host.Try(action, words, func() types.Result[*client.Response, uint8] {
		return client.Send(message, handles)
	})
	if err != nil {
		return nil, err
	}
	response := &Response{
		Status: int(host.Call(found.Status)),
		URL:    host.Call(found.Url),
		Header: Header{},
		Body:   &body{action, found},
	}
	for _, header := range host.Call(found.Headers) {
		response.Header.Add(header.Name, header.Value)
	}
	return response, nil
}

// Get sends a GET request with these secrets.
func Get(url string, with ...*secrets.Secret) (*Response, error) {
	return Do(&Request{URL: url, Secrets: with})
}

// Post sends a POST request with that body.
func Post(url, contentType string, body io.Reader, with ...*secrets.Secret) (*Response, error) {
	header := Header{}
	header.Set("Content-Type", contentType)
	return Do(&Request{Method: "POST", URL: url, Header: header, Body: body, Secrets: with})
}

// OK says whether the status is from 200 to 299.
func (r *Response) OK() bool { return r.Status >= 200 && r.Status < 300 }

// Bytes is the rest of the body, and closes it; an error if it has more than limit bytes.
func (r *Response) Bytes(limit int64) ([]byte, error) {
	defer r.Body.Close()
	var whole bytes.Buffer
	n, err := io.Copy(&whole, io.LimitReader(r.Body, limit+1))
	if err == nil && n > limit {
		err = &capwasm.Error{Word: capwasm.ErrTooLarge, Action: "fetch.Bytes " + r.URL}
	}
	if err != nil {
		return nil, err
	}
	return whole.Bytes(), nil
}

type body struct {
	action string
	handle *client.Response
}

func (b *body) Read(p []byte) (int, error) {
	if b.handle == nil {
		return 0, host.Closed(b.action)
	}
	if len(p) == 0 {
		return 0, nil
	}
	data, err := host.Try(b.action, words, func() types.Result[[]byte, uint8] {
		return b.handle.Read(uint32(min(len(p), piece)))
	})
	if err != nil {
		return 0, err
	}
	if len(data) == 0 {
		return 0, io.EOF
	}
	return copy(p, data), nil
}

func (b *body) Close() error {
	if b.handle != nil {
		b.handle.Drop()
		b.handle = nil
	}
	return nil
}
