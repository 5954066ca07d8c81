"""Describe global and describe of an object (reference 3)."""

SOAP = {"id": "tns:ID", "reference": "tns:ID", "boolean": "xsd:boolean", "int": "xsd:int", "long": "xsd:long",
        "double": "xsd:double", "currency": "xsd:double", "percent": "xsd:double", "date": "xsd:date",
        "datetime": "xsd:dateTime", "time": "xsd:time", "address": "urn:address", "location": "urn:location",
        "anyType": "xsd:anyType"}
DELETE_WORD = {"cascade": "cascadeDelete", "restrict": "restrictedDelete"}


def picklist_values(field):
    return [{"active": True, "defaultValue": field.default == value, "label": value, "validFor": None, "value": value}
            for value in field.picklist]


def byte_length(field):
    # Three bytes a character, but 18 for ids (reference 3.3).
    return field.length if field.type in ("id", "reference") else 3 * field.length


def describe_field(field):
    """The complete key set of a field (reference 3.3)."""
    text = field.type not in ("boolean", "int", "double", "currency", "percent", "date", "datetime", "time")
    compound = field.type in ("address", "location")
    long_text = field.long_text
    return {
        "aggregatable": not (field.type == "boolean" or long_text or compound),
        "aiPredictionField": False, "autoNumber": field.auto_number, "byteLength": byte_length(field),
        "calculated": field.calculated, "calculatedFormula": field.formula,
        "cascadeDelete": field.delete == "cascade" and bool(field.refers), "caseSensitive": field.case_sensitive,
        "compoundFieldName": field.compound, "controllerName": None, "createable": field.createable,
        "custom": field.custom, "defaultValue": field.default if field.type == "boolean" else None,
        "defaultValueFormula": None, "defaultedOnCreate": field.defaulted, "dependentPicklist": False,
        "deprecatedAndHidden": False, "digits": field.digits, "displayLocationInDecimal": field.display_decimal,
        "encrypted": field.encrypted, "externalId": field.external_id, "extraTypeInfo": field.extra,
        "filterable": not (long_text or compound or field.encrypted), "filteredLookupInfo": None,
        "formulaTreatNullNumberAsZero": bool(field.formula) and field.type == "double",
        "groupable": text and not (long_text or compound or field.encrypted or field.calculated),
        "highScaleNumber": False, "htmlFormatted": field.html, "idLookup": field.id_lookup,
        "inlineHelpText": field.inline_help, "label": field.label, "length": field.length, "mask": None,
        "maskType": field.mask_type, "name": field.name, "nameField": field.name_field,
        "namePointing": field.polymorphic, "nillable": field.nillable, "permissionable": field.permissionable,
        "picklistValues": picklist_values(field), "polymorphicForeignKey": field.polymorphic,
        "precision": field.precision, "queryByDistance": field.type == "location", "referenceTargetField": None,
        "referenceTo": field.refers, "relationshipName": field.relationship,
        "relationshipOrder": 0 if field.master_detail else None,
        "restrictedDelete": field.delete == "restrict" and bool(field.refers),
        "restrictedPicklist": field.restricted, "scale": field.scale, "searchPrefilterable": field.type == "reference",
        "soapType": SOAP.get(field.type, "xsd:string"),
        "sortable": not (long_text or compound or field.encrypted or field.type == "multipicklist"),
        "type": field.type, "unique": field.unique, "updateable": field.updateable, "writeRequiresMasterRead": False}


def base(obj, version):
    """The keys that describe global and describe share."""
    path = f"/services/data/v{version}/sobjects/{obj.name}"
    changes = obj.writable
    return {
        "activateable": False, "associateEntityType": "History" if obj.history_of else None,
        "associateParentEntity": obj.history_of, "createable": changes, "custom": obj.custom, "customSetting": False,
        "deepCloneable": False, "deletable": obj.deletable, "deprecatedAndHidden": False, "feedEnabled": False,
        "hasSubtypes": False, "isInterface": False, "isSubtype": False, "keyPrefix": obj.prefix, "label": obj.label,
        "labelPlural": obj.plural, "layoutable": changes, "mergeable": "MasterRecordId" in obj.by_name,
        "mruEnabled": changes, "name": obj.name, "queryable": True, "replicateable": not obj.setup,
        "retrieveable": True, "searchable": changes, "triggerable": changes, "undeletable": obj.deletable,
        "updateable": changes,
        "urls": {"rowTemplate": path + "/{ID}", "describe": path + "/describe", "sobject": path}}


def child_relationships(schema, obj):
    found = []
    for child, field in schema.children.get(obj.name, ()):
        if child.visible and field.visible and not child.internal:
            found.append({"cascadeDelete": field.delete == "cascade", "childSObject": child.name,
                          "deprecatedAndHidden": False, "field": field.name, "junctionIdListNames": [],
                          "junctionReferenceTo": [], "relationshipName": field.child_relationship,
                          "restrictedDelete": field.delete == "restrict"})
    return found


def describe(schema, obj, version):
    body = base(obj, version)
    body.update({
        "actionOverrides": [], "childRelationships": child_relationships(schema, obj), "compactLayoutable": True,
        "fields": [describe_field(f) for f in obj.fields if f.visible],
        "listviewable": None, "lookupLayoutable": None, "namedLayoutInfos": [], "networkScopeFieldName": None,
        "recordTypeInfos": [{"active": True, "available": True, "defaultRecordTypeMapping": True,
                             "developerName": "Master", "master": True, "name": "Master",
                             "recordTypeId": "012000000000000AAA",
                             "urls": {"layout": f"/services/data/v{version}/sobjects/{obj.name}/describe/layouts/"
                                                "012000000000000AAA"}}],
        "searchLayoutable": obj.writable, "sobjectDescribeOption": "FULL",
        "supportedScopes": [{"label": f"All {obj.plural}", "name": "everything"},
                            {"label": f"My {obj.plural}", "name": "mine"}]})
    return body


def describe_global(schema, version):
    shown = [o for o in schema.objects.values() if o.visible and not o.internal]
    return {"encoding": "UTF-8", "maxBatchSize": 200,
            "sobjects": [base(o, version) for o in sorted(shown, key=lambda o: o.name)]}
