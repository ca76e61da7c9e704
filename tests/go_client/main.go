// Reads features by a client that oapi-codegen has made from docs/reference/openapi.json, and prints what it got.
//
//	main URL FEATURE,FEATURE… KEY ENTITY…
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
	if err := run(os.Args[1], strings.Split(os.Args[2], ","), os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url string, features []string, key string, entities []string) error {
	client, err := stillwell.NewClientWithResponses(url)
	if err != nil {
		return err
	}
	column := make([]interface{}, len(entities))
	for place, entity := range entities {
		column[place] = entity
	}
	asked := stillwell.FeaturesRequest{Features: &features, Entities: stillwell.Entities{key: column}}
	answer, err := client.ReadFeaturesWithResponse(context.Background(), asked)
	if err != nil {
		return err
	}
	if answer.JSON422 != nil {
		return fmt.Errorf("%s: %s", *answer.JSON422.Error.Field, answer.JSON422.Error.Message)
	}
	if answer.JSON404 != nil {
		return fmt.Errorf("%s: %s", *answer.JSON404.Error.Field, answer.JSON404.Error.Message)
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("%s", answer.Status())
	}
	for _, feature := range features {
		read := answer.JSON200.Features[feature]
		for place, entity := range entities {
			value, err := json.Marshal(read.Values[place])
			if err != nil {
				return err
			}
			fmt.Println(entity, feature, read.Type, string(value), read.Statuses[place])
		}
	}
	return nil
}
