// Asks a query service by a client that oapi-codegen has made from docs/reference/openapi.json, and prints what it got.
//
//	main URL read TOKEN FEATURE,FEATURE… KEY ENTITY…     behind a push, where TOKEN is not empty
//	main URL push VIEW ROW                               a JSON object; prints the token
//	main URL predict MODEL KEY ENTITY…
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"stillwell.test/client/stillwell"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url string, verb string, words []string) error {
	client, err := stillwell.NewClientWithResponses(url)
	if err != nil {
		return err
	}
	switch verb {
	case "read":
		return read(client, words[0], strings.Split(words[1], ","), words[2], words[3:])
	case "push":
		return push(client, words[0], words[1])
	case "predict":
		return predict(client, words[0], words[1], words[2:])
	}
	return fmt.Errorf("%s is none of read, push and predict", verb)
}

func read(client *stillwell.ClientWithResponses, token string, features []string, key string, entities []string) error {
	asked := stillwell.FeaturesRequest{After: &token, Features: &features, Entities: column(key, entities)}
	answer, err := client.ReadFeaturesWithResponse(context.Background(), asked)
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return refused(answer.Status(), answer.JSON404, answer.JSON422, answer.JSON504)
	}
	for _, feature := range features {
		read := answer.JSON200.Features[feature]
		for place, entity := range entities {
			fmt.Println(entity, feature, read.Type, shown(read.Values[place]), read.Statuses[place])
		}
	}
	return nil
}

func push(client *stillwell.ClientWithResponses, view string, row string) error {
	var object map[string]interface{}
	if err := json.Unmarshal([]byte(row), &object); err != nil {
		return err
	}
	asked := stillwell.PushJSONRequestBody{View: view}
	if err := asked.Rows.FromRowObjects(stillwell.RowObjects{object}); err != nil {
		return err
	}
	answer, err := client.PushWithResponse(context.Background(), asked)
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return refused(answer.Status(), answer.JSON404, answer.JSON422, answer.JSON503)
	}
	for _, reject := range answer.JSON200.Rejects {
		fmt.Println(reject.Row, reject.Reason, reject.Message)
	}
	fmt.Println(answer.JSON200.Statuses[0], shown(answer.JSON200.Token))
	return nil
}

func predict(client *stillwell.ClientWithResponses, model string, key string, entities []string) error {
	asked := stillwell.ReadPredictionsJSONRequestBody{Model: model, Entities: column(key, entities)}
	answer, err := client.ReadPredictionsWithResponse(context.Background(), asked)
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return refused(answer.Status(), answer.JSON404, answer.JSON422, answer.JSON503)
	}
	for place, entity := range entities {
		read := answer.JSON200.Predictions[place]
		fmt.Println(entity, read.State, shown(read.Outputs))
	}
	return nil
}

func column(key string, entities []string) stillwell.Entities {
	values := make([]interface{}, len(entities))
	for place, entity := range entities {
		values[place] = entity
	}
	return stillwell.Entities{key: values}
}

func shown(value interface{}) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func refused(status string, answers ...*stillwell.Error) error {
	for _, answer := range answers {
		if answer != nil {
			return fmt.Errorf("%s: %s", status, answer.Error.Message)
		}
	}
	return fmt.Errorf("%s", status)
}
