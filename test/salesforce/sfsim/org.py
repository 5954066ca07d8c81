"""The metadata of the org at the start: objects and fields, compactly.

describe, the SQLite tables and the checks of values all derive from these definitions."""
from .schema import Field, SObject

INDUSTRIES = ["Agriculture", "Banking", "Biotechnology", "Chemicals", "Construction", "Consulting", "Education",
              "Electronics", "Energy", "Engineering", "Finance", "Healthcare", "Insurance", "Manufacturing", "Media",
              "Retail", "Technology", "Telecommunications", "Transportation", "Utilities", "Other"]
STAGES = ["Prospecting", "Qualification", "Needs Analysis", "Value Proposition", "Id. Decision Makers",
          "Perception Analysis", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"]
READ_ONLY = {"createable": False, "updateable": False}


def text(name, length=255, label=None, **more):
    return Field(name, "string", label, length=length, **more)


def long_text(name, length=32000, label=None, **more):
    return Field(name, "textarea", label, length=length, extra="plaintextarea", **more)


def number(name, precision=18, scale=0, label=None, type="double", **more):
    return Field(name, type, label, precision=precision, scale=scale, **more)


def picklist(name, values, label=None, **more):
    return Field(name, more.pop("type", "picklist"), label, picklist=list(values), **more)


def lookup(name, target, relationship, label=None, children=None, **more):
    targets = [target] if isinstance(target, str) else target
    return Field(name, "reference", label, refers=targets, relationship=relationship, child_relationship=children,
                 **more)


def key_field():
    return text("PG_Key__c", 255, "PG Key", external_id=True, unique=True, case_sensitive=True)


def system(owner=True, merge=False):
    """The fields that every record has, and that only the server writes."""
    stamp = {"nillable": False, "defaulted": True, **READ_ONLY}
    fields = [Field("Id", "id", "Record ID", id_lookup=True, **stamp),
              Field("IsDeleted", "boolean", "Deleted", **READ_ONLY)]
    if merge:
        fields.append(lookup("MasterRecordId", "@self", "MasterRecord", "Master Record ID", **READ_ONLY))
    if owner:
        fields.append(lookup("OwnerId", "User", "Owner", "Owner ID", nillable=False, defaulted=True))
    return fields, [
        Field("CreatedDate", "datetime", "Created Date", **stamp),
        lookup("CreatedById", "User", "CreatedBy", "Created By ID", **stamp),
        Field("LastModifiedDate", "datetime", "Last Modified Date", **stamp),
        lookup("LastModifiedById", "User", "LastModifiedBy", "Last Modified By ID", **stamp),
        Field("SystemModstamp", "datetime", "System Modstamp", **stamp)]


def make(name, label, plural, prefix, fields, owner=True, merge=False, **given):
    head, tail = system(owner, merge)
    for field in head:
        field.refers = [name if t == "@self" else t for t in field.refers]
    return SObject(name, label, plural, prefix, head + fields + tail, **given)


def address(prefix, label):
    """A compound address and its components; only the components can be written (reference 3.4)."""
    part = {"compound": prefix + "Address"}
    return [Field(prefix + "Street", "textarea", f"{label} Street".strip(), length=255, extra="plaintextarea", **part),
            text(prefix + "City", 40, f"{label} City".strip(), **part),
            text(prefix + "State", 80, f"{label} State/Province".strip(), **part),
            text(prefix + "PostalCode", 20, f"{label} Zip/Postal Code".strip(), **part),
            text(prefix + "Country", 80, f"{label} Country".strip(), **part),
            number(prefix + "Latitude", 18, 15, f"{label} Latitude".strip(), **part),
            number(prefix + "Longitude", 18, 15, f"{label} Longitude".strip(), **part),
            Field(prefix + "Address", "address", f"{label} Address".strip())]


def person_name(required=True):
    """Name of a person: compound and read-only, put together from its parts."""
    return [text("LastName", 80, "Last Name", compound="Name", nillable=not required),
            text("FirstName", 40, "First Name", compound="Name"),
            picklist("Salutation", ["Mr.", "Ms.", "Mrs.", "Dr.", "Prof."], compound="Name"),
            text("Name", 121, "Full Name", name_field=True, nillable=False,
                 sql="trim(coalesce(\"FirstName\", '') || ' ' || coalesce(\"LastName\", ''))")]


def account():
    return make("Account", "Account", "Accounts", "001", [
        text("Name", 255, "Account Name", nillable=False, name_field=True, extra="switchablepersonname"),
        picklist("Type", ["Prospect", "Customer - Direct", "Customer - Channel", "Channel Partner / Reseller",
                          "Installation Partner", "Technology Partner", "Other"], "Account Type"),
        lookup("ParentId", "Account", "Parent", "Parent Account ID", "ChildAccounts"),
        *address("Billing", "Billing"), *address("Shipping", "Shipping"),
        Field("Phone", "phone", "Account Phone", track=True), Field("Fax", "phone", "Account Fax"),
        text("AccountNumber", 40, "Account Number"), Field("Website", "url", "Website"),
        text("Sic", 20, "SIC Code"), picklist("Industry", INDUSTRIES, track=True),
        number("AnnualRevenue", 18, 0, "Annual Revenue", "currency"),
        Field("NumberOfEmployees", "int", "Employees", digits=8),
        picklist("Ownership", ["Public", "Private", "Subsidiary", "Other"]),
        text("TickerSymbol", 20, "Ticker Symbol"), long_text("Description", 32000, "Account Description"),
        picklist("Rating", ["Hot", "Warm", "Cold"], "Account Rating"), text("Site", 80, "Account Site"),
        picklist("AccountSource", ["Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other"],
                 "Account Source"),
        Field("LastActivityDate", "date", "Last Activity", **READ_ONLY),
        key_field(),
        text("Ext_CI__c", 255, "Ext CI", external_id=True, unique=True),
        text("Ext_NU__c", 255, "Ext NU", external_id=True, case_sensitive=True),
        number("Ext_Num__c", 18, 0, "Ext Num", external_id=True, unique=True),
        text("Loyalty_Tier__c", 20, "Loyalty Tier", track=True), number("Annual_Score__c", 18, 2, "Annual Score"),
        Field("Archived__c", "boolean", "Archived"), Field("Archived_At__c", "datetime", "Archived At"),
        Field("Active__c", "boolean", "Active", default=True), long_text("Notes__c", 32768, "Notes"),
        number("Balance__c", 18, 2, "Balance", "currency"),
        picklist("Priority__c", ["High", "Medium", "Low"], "Priority", restricted=True)], merge=True)


def contact():
    return make("Contact", "Contact", "Contacts", "003", [
        lookup("AccountId", "Account", "Account", "Account ID", "Contacts", delete="cascade"),
        *person_name(), *address("Mailing", "Mailing"),
        Field("Phone", "phone", "Business Phone", track=True), Field("Fax", "phone", "Business Fax"),
        Field("MobilePhone", "phone", "Mobile Phone"), Field("HomePhone", "phone", "Home Phone"),
        lookup("ReportsToId", "Contact", "ReportsTo", "Reports To ID"),
        Field("Email", "email", "Email", id_lookup=True, track=True), text("Title", 128),
        text("Department", 80), picklist("LeadSource", ["Web", "Phone Inquiry", "Partner Referral",
                                                        "Purchased List", "Other"], "Lead Source"),
        Field("Birthdate", "date", "Birthdate"), long_text("Description", 32000, "Contact Description"),
        Field("DoNotCall", "boolean", "Do Not Call"), Field("HasOptedOutOfEmail", "boolean", "Email Opt Out"),
        key_field()], merge=True)


def opportunity():
    return make("Opportunity", "Opportunity", "Opportunities", "006", [
        lookup("AccountId", "Account", "Account", "Account ID", "Opportunities", delete="cascade"),
        text("Name", 120, nillable=False, name_field=True), long_text("Description", 32000),
        picklist("StageName", STAGES, "Stage", nillable=False, track=True),
        number("Amount", 18, 2, type="currency", track=True),
        number("Probability", 3, 0, "Probability (%)", "percent", defaulted=True, default=10.0),
        Field("CloseDate", "date", "Close Date", nillable=False),
        picklist("Type", ["Existing Business", "New Business"], "Opportunity Type"), text("NextStep", 255, "Next Step"),
        picklist("LeadSource", ["Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other"], "Lead Source"),
        Field("IsClosed", "boolean", "Closed", sql="coalesce(\"StageName\" IN ('Closed Won', 'Closed Lost'), 0)"),
        Field("IsWon", "boolean", "Won", sql="coalesce(\"StageName\" = 'Closed Won', 0)"),
        key_field()])


def lead():
    return make("Lead", "Lead", "Leads", "00Q", [
        *person_name(), text("Title", 128), text("Company", 255, nillable=False),
        *address("", "")[:5], Field("Address", "address", "Address"),
        Field("Phone", "phone"), Field("MobilePhone", "phone", "Mobile Phone"), Field("Email", "email"),
        Field("Website", "url"), long_text("Description"), picklist("Industry", INDUSTRIES),
        picklist("Status", ["Open - Not Contacted", "Working - Contacted", "Closed - Converted",
                            "Closed - Not Converted"], "Lead Status", nillable=False, defaulted=True,
                 default="Open - Not Contacted"),
        number("AnnualRevenue", 18, 0, "Annual Revenue", "currency"),
        Field("NumberOfEmployees", "int", "Employees", digits=8), key_field()], merge=True)


def user():
    return make("User", "User", "Users", "005", [
        text("Username", 80, nillable=False, id_lookup=True), *person_name(),
        Field("Email", "email", nillable=False, id_lookup=True), text("Alias", 8, nillable=False),
        Field("IsActive", "boolean", "Active", default=True),
        picklist("UserType", ["Standard", "AutomatedProcess"], "User Type", **READ_ONLY)],
        owner=False, writable=False, deletable=False)


def invoice():
    return make("Invoice__c", "Invoice", "Invoices", "a00", [
        text("Name", 80, "Invoice Name", name_field=True, defaulted=True, nillable=False),
        lookup("Account__c", "Account", "Account__r", "Account", "Invoices__r"),
        lookup("Contact__c", "Contact", "Contact__r", "Contact", "Invoices__r", delete="restrict"),
        lookup("Parent_Invoice__c", "Invoice__c", "Parent_Invoice__r", "Parent Invoice", "Child_Invoices__r"),
        number("Amount__c", 18, 2, "Amount", "currency", track=True), Field("Due_Date__c", "date", "Due Date"),
        picklist("Status__c", ["Draft", "Sent", "Paid"], "Status", track=True), long_text("Notes__c", 32768, "Notes"),
        number("Quantity__c", 9, 0, "Quantity"), Field("Paid__c", "boolean", "Paid"),
        Field("Archived__c", "boolean", "Archived"), Field("Archived_At__c", "datetime", "Archived At"),
        key_field()])


def invoice_line():
    return make("Invoice_Line__c", "Invoice Line", "Invoice Lines", "a01", [
        Field("Name", "string", "Line Number", length=80, name_field=True, auto_number=True, nillable=False,
              defaulted=True, auto_format="L-{00000}"),
        lookup("Invoice__c", "Invoice__c", "Invoice__r", "Invoice", "Lines__r", nillable=False, updateable=False,
               master_detail=True, delete="cascade"),
        text("Product__c", 100, "Product"), number("Price__c", 16, 2, "Price", "currency"), key_field()], owner=False)


def everything():
    """One field of every kind, for tests of values."""
    return make("Everything__c", "Everything", "Everything", "a02", [
        text("Name", 80, "Everything Name", name_field=True, defaulted=True, nillable=False),
        key_field(), text("Text__c", 50, "Text", track=True),
        Field("Text_Area__c", "textarea", "Text Area", length=255, extra="plaintextarea"),
        long_text("Long_Text__c", 32768, "Long Text"),
        Field("Html__c", "textarea", "Html", length=32768, html=True, extra="richtextarea"),
        Field("Phone__c", "phone", "Phone"), Field("Url__c", "url", "Url"), Field("Email__c", "email", "Email"),
        picklist("Picklist__c", ["Red", "Green", "Blue"], "Picklist"),
        picklist("Restricted__c", ["Red", "Green", "Blue"], "Restricted", restricted=True),
        picklist("Multi__c", ["Mon", "Tue", "Wed", "Thu", "Fri"], "Multi", type="multipicklist", restricted=True),
        picklist("Multi_Open__c", ["One", "Two", "Three"], "Multi Open", type="multipicklist"),
        Field("Checkbox__c", "boolean", "Checkbox"),
        number("Number__c", 18, 0, "Number"), number("Number_2__c", 18, 2, "Number 2", track=True),
        number("Number_5__c", 18, 5, "Number 5"), number("Small__c", 4, 0, "Small"),
        Field("Int__c", "int", "Int", digits=9),
        number("Currency__c", 18, 2, "Currency", "currency"), number("Percent__c", 16, 2, "Percent", "percent"),
        Field("Date__c", "date", "Date"), Field("Datetime__c", "datetime", "Datetime"), Field("Time__c", "time", "Time"),
        lookup("Lookup__c", "Account", "Lookup__r", "Lookup", "Everything__r"),
        text("Unique_CI__c", 40, "Unique CI", unique=True),
        Field("Auto__c", "string", "Auto", length=30, auto_number=True, auto_format="A-{0000}"),
        text("Formula__c", 1300, "Formula", sql="\"Name\" || ' / ' || coalesce(\"Text__c\", '')",
             formula="Name & \" / \" & Text__c"),
        number("Formula_Number__c", 18, 2, "Formula Number", sql="coalesce(\"Number_2__c\", 0) * 2",
               formula="Number_2__c * 2"),
        number("Location__Latitude__s", 18, 6, "Location (Latitude)", compound="Location__c"),
        number("Location__Longitude__s", 18, 6, "Location (Longitude)", compound="Location__c"),
        Field("Location__c", "location", "Location"),
        Field("Encrypted__c", "encryptedstring", "Encrypted", length=100, mask_type="all"),
        Field("Archived__c", "boolean", "Archived"), Field("Archived_At__c", "datetime", "Archived At"),
        Field("Active__c", "boolean", "Active", default=True)])


def setup_objects():
    """What granting a custom field needs (reference 11)."""
    yes = {"nillable": False, "updateable": False}
    return [
        make("PermissionSet", "Permission Set", "Permission Sets", "0PS", [
            text("Name", 80, nillable=False, name_field=True, unique=True, id_lookup=True), text("Label", 80, nillable=False),
            text("Description", 255), Field("IsOwnedByProfile", "boolean", "Owned By Profile", **READ_ONLY)],
            owner=False, setup=True),
        make("PermissionSetAssignment", "Permission Set Assignment", "Permission Set Assignments", "0Pa", [
            lookup("PermissionSetId", "PermissionSet", "PermissionSet", "PermissionSet ID", "Assignments",
                   delete="cascade", **yes),
            lookup("AssigneeId", "User", "Assignee", "User ID", "PermissionSetAssignments", **yes)],
            owner=False, setup=True),
        make("FieldPermissions", "Field Permissions", "Field Permissions", "01k", [
            lookup("ParentId", "PermissionSet", "Parent", "Parent ID", "FieldPerms", delete="cascade", **yes),
            text("SobjectType", 255, "Sobject Type Name", **yes), text("Field", 255, "Field Name", **yes),
            Field("PermissionsRead", "boolean", "Read Field"), Field("PermissionsEdit", "boolean", "Edit Field")],
            owner=False, setup=True),
        make("CustomField", "Custom Field", "Custom Fields", "00N", [
            text("DeveloperName", 80, "Developer Name", name_field=True), text("TableEnumOrId", 40, "Entity"),
            text("FullName", 255, "Full Name"), text("NamespacePrefix", 15, "Namespace Prefix")],
            owner=False, writable=False, deletable=False, internal=True),   # seen by tooling queries only
        make("Organization", "Organization", "Organizations", "00D", [
            text("Name", 80, nillable=False, name_field=True), text("InstanceName", 5, "Instance Name"),
            Field("IsSandbox", "boolean", "Is Sandbox"), text("OrganizationType", 40, "Edition")],
            owner=False, writable=False, deletable=False, setup=True)]


def history(obj):
    """The history object of another one; it is read-only (reference 7.4)."""
    if obj.custom:
        name, parent, relation = obj.name[:-3] + "__History", "ParentId", "Parent"
    elif obj.name == "Opportunity":
        name, parent, relation = "OpportunityFieldHistory", "OpportunityId", "Opportunity"
    else:
        name, parent, relation = obj.name + "History", obj.name + "Id", obj.name
    return SObject(name, f"{obj.label} History", f"{obj.label} History", "017" if not obj.custom else "h" + obj.prefix[1:], [
        Field("Id", "id", "Record ID", nillable=False, defaulted=True, **READ_ONLY),
        Field("IsDeleted", "boolean", "Deleted", **READ_ONLY),
        lookup(parent, obj.name, relation, f"{obj.label} ID", "Histories", **READ_ONLY),
        lookup("CreatedById", "User", "CreatedBy", "Created By ID", **READ_ONLY),
        Field("CreatedDate", "datetime", "Created Date", **READ_ONLY),
        Field("Field", "picklist", "Changed Field", **READ_ONLY),
        Field("DataType", "picklist", "Datatype", **READ_ONLY),
        Field("OldValue", "anyType", "Old Value", **READ_ONLY),
        Field("NewValue", "anyType", "New Value", **READ_ONLY)],
        writable=False, deletable=False, history_of=obj.name, history_parent=parent)


def objects():
    tracked = [account(), contact(), opportunity(), lead(), invoice(), everything()]
    histories = [history(o) for o in tracked]
    # All standard histories share the prefix 017; ids resolve to their object only where the prefix is its own.
    for i, obj in enumerate(histories):
        obj.prefix = "01%s" % "789ABC"[i] if not obj.custom and obj.prefix == "017" else obj.prefix
    return [*tracked[:4], user(), *tracked[4:], invoice_line(), *setup_objects(), *histories]
